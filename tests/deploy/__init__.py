"""What is deployed, checked without a container engine: the chart, the compose file, the Dockerfile."""

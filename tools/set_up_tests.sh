#!/bin/sh
# Fetches what the tests run against: Apache Kafka, Prometheus, telemetrygen, a client in Go, and in CI helm.
# What can't be had is named, and its tests are skipped, naming it again; in CI (CI is set) that is a failure.
set -u
cd "$(dirname "$0")"
missing=0
for step in install_packages fetch_kafka fetch_prometheus fetch_telemetrygen build_go_client ${CI:+fetch_helm}; do
    ./$step.sh || missing=1
done
if [ $missing = 1 ] && [ -n "${CI:-}" ]; then
    exit 1
fi
exit 0

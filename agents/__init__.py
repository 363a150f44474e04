"""Spanmill's agents: who runs it. Kafka, Faust, sockets, clocks, threads and the command line."""

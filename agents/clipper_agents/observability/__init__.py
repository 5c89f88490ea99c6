"""What a running process tells: metrics in Prometheus' format and one-line logs."""

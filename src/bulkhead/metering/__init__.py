"""What instances have used, in bins of time; prices, invoices, and the exposition for Prometheus. Knows no host."""

"""What is shown and taken over HTTP: health, metrics, webhooks and the status page."""

"""The map: an HTTP API over stores and inventories, and the page that uses it."""

"""From results to alerts, and from alerts to what people read: the list, the report and the map layer."""

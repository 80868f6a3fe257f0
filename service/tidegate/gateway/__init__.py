"""The use cases of connections and of the application."""

"""What a client, an application and a page may do: tokens, API keys, hosts, origins."""

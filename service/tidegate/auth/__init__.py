"""Who somebody is and what he may do: tokens, API keys, hosts, origins."""

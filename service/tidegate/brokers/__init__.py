"""Who orders, keeps and announces messages: one contract, embedded or on Redis."""

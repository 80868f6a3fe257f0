"""Every setting with its default and limit; reading, refusing and printing them."""

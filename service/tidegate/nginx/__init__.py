"""nginx's configuration made from the settings, and any nginx's held against them."""

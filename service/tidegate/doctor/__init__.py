"""What is wrong with a running deployment, measured through its edge as its clients go through it."""

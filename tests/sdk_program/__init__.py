"""A program that uses the SDK as a user does."""

"""Logged decisions as columns, from any log, and the columns that are worked out from them."""

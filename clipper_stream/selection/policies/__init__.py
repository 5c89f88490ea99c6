"""Selection policies, one module a policy, and the distributions that they share."""

"""A contract as a prompt, and a reply as outputs of the contract."""

"""Which model answers: the candidates a request has, what is known of each, and the choice."""

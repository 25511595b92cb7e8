"""The commands, a file for each family; ``command_line`` loads the one that is asked for."""

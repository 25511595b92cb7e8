"""The floor everything stands on: values and seams. Standard library and pydantic only."""

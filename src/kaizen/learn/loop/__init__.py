"""The Kaizen loop: watches a program's scores, proposes, tests, releases, and takes back what turned bad."""

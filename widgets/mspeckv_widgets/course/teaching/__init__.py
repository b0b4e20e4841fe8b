"""What teaching the course needs: the build track, exported assignments, result files, notes.

Public surface: the command `mspeckv course`, which is `command.run`, and, for notebooks,
`result.submit`.
"""

"""The computer: its operations in one table, the state of a run, and the engines that execute it."""

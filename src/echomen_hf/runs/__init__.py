"""The folder of a run: its files, who claims it, and what is finished."""

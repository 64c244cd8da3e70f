"""The devices of a run, and the processes that hold them: who has which samples, and on what all agree."""

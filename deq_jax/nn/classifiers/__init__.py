"""Image classifiers around an equilibrium: the chapter's, and one of three parts that can be chosen."""

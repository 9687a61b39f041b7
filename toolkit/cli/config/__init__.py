"""From the words of a command to one plain, checked configuration: the only package that composes with Hydra."""

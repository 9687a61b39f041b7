"""From the words of a command to one plain, checked configuration: the only room that composes with Hydra."""

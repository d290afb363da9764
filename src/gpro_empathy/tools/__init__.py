"""Tools around the run: checks of the machine, profiles, chat, serving, publishing."""

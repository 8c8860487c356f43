"""From the command line to built objects: overrides, settings and their rules, checkpoints' settings, error messages.

The only room that composes and instantiates configurations. Networks, data and tasks are named by `conf/`, never here.
"""

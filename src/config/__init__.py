"""From the command line to built objects: the only room that composes and instantiates configurations.

Networks, data and tasks are named by `conf/`, never here.
"""

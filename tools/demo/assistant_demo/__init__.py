"""The main job, shown: one command that brings the platform up and asks an assistant a question.

`model_server` runs in a pod and stands in for a language model where none is reachable; the rest runs on the
user's machine.
"""

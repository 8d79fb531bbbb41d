"""The fourteen example programs of Adaptive Neural Compilation (arXiv 1605.07969), written anew in restricted Python.

A file a group: ``arithmetic``, ``arrays``, ``linked``, ``sorting``, ``graphs``. ``tasks`` says what each is run on.
"""

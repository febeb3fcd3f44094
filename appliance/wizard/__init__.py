"""A new user's whole path, step by step: `gild.pyz wizard`.

`engine` says what a step is: questions, problems, what it would do as commands, and its status, which is computed from
facts every time and stored nowhere. `steps` is the list of them, one file each. Facts (`facts`) and answers
(`answers`) are plain values: what is asked, shown and run is decided without a terminal, and the same steps can stand
behind any other face. `gather` looks, `acting` runs the commands a person would have typed, `terminal` holds the
conversation, `unattended` does without one.
"""

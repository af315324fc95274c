"""Which commands there are: the module of each is loaded only when it is asked for."""

from __future__ import annotations

COMMANDS = {
    "run": "Create an instance, start it and attach to it",
    "clean": "Run a command in a clean room, which is thrown away",
    "create": "Create an instance without starting it",
    "start": "Start instances",
    "stop": "Stop instances in order",
    "restart": "Stop instances and start them again",
    "kill": "Send a signal to instances",
    "pause": "Freeze every process of instances",
    "unpause": "Let paused instances go on",
    "rm": "Remove instances",
    "ps": "List instances",
    "inspect": "Show everything about instances, as a JSON array",
    "exec": "Run a command in a running instance",
    "attach": "Attach to a running instance's input and output",
    "logs": "Show an instance's log",
    "wait": "Wait for instances to end and print their exit codes",
    "stats": "Show what running instances use",
    "events": "Show what has happened",
    "cp": "Copy files out of an instance or into it",
    "update": "Change the plan or the restart policy of instances",
    "move": "Put an instance behind another wall",
    "snapshot": "Manage snapshots of instances",
    "rescue": "Open a broken system's disk and give a shell in it",
    "build": "Make an image by a Containerfile, or a unikernel of an image or a program",
    "image": "Manage images",
    "plan": "Manage named plans",
    "isolation": "Show the levels of isolation, and which rule chooses one",
    "network": "Manage networks",
    "volume": "Manage volumes",
    "completion": "Print what bash or zsh needs to complete command lines",
    "doctor": "Show what this host can and cannot do",
    "serve": "Run the daemon",
}
"""Command and one line of help, in the order of `bulkhead --help`."""

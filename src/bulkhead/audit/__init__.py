"""What can be reached from behind a wall: the probe's report read, judged and scored. Pure: facts in, a report out.

`facts` reads what the probe says, which is hostile where the instance is; `calls` tells a filter's refusal from the
kernel's; `outside` is what the host's kernel says; `findings` are the rules with their weights; `exploits` is data.
"""

"""What tests share: abilities of the machine, the leak check, sandboxes, the daemon, images."""

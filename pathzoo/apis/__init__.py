"""What tools/ and the command line call: train, test, predict, and what they share."""

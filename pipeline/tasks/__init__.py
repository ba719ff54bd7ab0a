"""What is learned: the tasks, and the readers that bring their sentences and labels."""

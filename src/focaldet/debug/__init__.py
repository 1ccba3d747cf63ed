"""Pictures and checks that show what training sees."""

"""What metrics/ holds, as tables, figures and pages."""

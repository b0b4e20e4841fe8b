"""What panels, explorers and course draw with: colours, figures, tables and marked text.

Nothing in here knows a panel.
"""

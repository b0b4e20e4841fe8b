"""The moving picture of a round.

`script` makes a round's events into moves, words and moments; `stage` says where things stand,
`pose` where each is at a moment; `drawing` and `still` draw that as SVG, and `scene.js` does the
same sums in the page, where `moving_round` shows it. All but the last know no widget.
"""

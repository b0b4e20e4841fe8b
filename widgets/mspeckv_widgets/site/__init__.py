"""The site: four pages of plain files, made from the data and the formulas of the labs.

`tracing` writes down what Python's own functions do with their numbers, step by step, and
`program.js` takes the same steps in the page; so no formula is written twice. `films` has the
recorded rounds, `forecasts` the cost model, `published` the tables, `guesses` the accept/reject
test; `build` puts the pages together.
"""

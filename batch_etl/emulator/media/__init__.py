"""Images and documents: what they are, what they cost, and what of them can be read.

Pillow decodes images and pypdf reads PDFs. Both are imported when the first image or document
comes: a text-only line costs nothing for them. What was found out about one piece of data is
remembered, because a line is looked at three times (rules, tokens, answer) and a document in front
of every line comes again with each.

    remembered   results by the text they were made from
    images       bytes -> a decoded picture's format and size; its tokens
    pdfs         bytes -> the text of each page
    blocks       content blocks -> their picture or PDF
    reading      a turn -> the record's text, and what could not be read
"""

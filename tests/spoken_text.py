"""What is written against what is heard, as `docs/spoken-text.md` shows it. Run it to print the tables of that page."""

from __future__ import annotations

# (what a model writes, what a caller hears) under the heading of the page
CASES: dict[str, list[tuple[str, str]]] = {
    "Emphasis": [
        ("*Yes*, of course.", "Yes, of course."),
        ("**Sure!** One moment.", "Sure! One moment."),
        ("***Both*** of them", "Both of them"),
        ("_Yes_, of course.", "Yes, of course."),
        ("__Sure__, one moment.", "Sure, one moment."),
        ("~~Ten~~ twelve euros", "Ten twelve euros"),
        ("**It is *very* good**", "It is very good"),
        ("*It is **very** good*", "It is very good"),
        ("**Total:** 5 euros", "Total: 5 euros"),
        ("It is (**really**) good.", "It is (really) good."),
        ("un**frigging**believable", "un**frigging**believable"),
        ("a **b** c **d", "a b c d"),
        ("2 * 3 * 4", "2 * 3 * 4"),
        ("5*3 is 15", "5*3 is 15"),
        ("2**3 is 8", "2**3 is 8"),
        ("2*x*y", "2*x*y"),
        ("a lone * here", "a lone * here"),
        ("from 5 euros*", "from 5 euros*"),
        ("Dial *67 or *69.", "Dial *67 or *69."),
        ("Dial *100# now.", "Dial *100# now."),
        ("snake_case_name", "snake_case_name"),
        ("a_b and _c", "a_b and _c"),
        ("first_last@example.com", "first_last@example.com"),
        ("f*** it", "f*** it"),
        ("Sign here: ____", "Sign here: ____"),
        ("About ~5 minutes, ~~", "About ~5 minutes, ~~"),
    ],
    "Headings, lists and other lines": [
        ("# Menu\nSoup", "Menu.\nSoup"),
        ("## What is new?\nMuch.", "What is new?\nMuch."),
        ("### Opening hours:\n9 to 5", "Opening hours:\n9 to 5"),
        ("## Menu ##\nSoup", "Menu.\nSoup"),
        ("## **Menu**\nSoup", "Menu.\nSoup"),
        ("# 菜单\n汤", "菜单。\n汤"),
        ("#\nSoup", "Soup"),
        ("#1 is the best", "#1 is the best"),
        ("We are #1", "We are #1"),
        ("####### seven", "####### seven"),
        ("- soup\n- bread", "soup\nbread"),
        ("* soup\n* bread", "soup\nbread"),
        ("+ soup\n+ bread", "soup\nbread"),
        ("• soup\n• bread", "soup\nbread"),
        ("- soup\n  - hot\n    - or cold", "soup\nhot\nor cold"),
        ("1. soup\n2. bread", "1. soup\n2. bread"),
        ("1) **soup**", "1) soup"),
        ("- [ ] soup\n- [x] bread", "soup\nbread"),
        ("-5 degrees", "-5 degrees"),
        ("+49 170 1234567", "+49 170 1234567"),
        ("Soup - or bread", "Soup - or bread"),
        ("> It is late.\n> Go home.", "It is late.\nGo home."),
        ("> > It is late.", "It is late."),
        (">5 euros", ">5 euros"),
        ("One\n\n---\n\nTwo", "One\n\nTwo"),
        ("One\n***\nTwo", "One\nTwo"),
        ("Title\n=====\nText", "Title\nText"),
        ("--", "--"),
        ("One  \nTwo", "One  \nTwo"),
        ("One\\\nTwo", "One\nTwo"),
    ],
    "Tables": [
        ("| Dish | Price |\n|---|---:|\n| Soup | 5 € |\n| Bread | 2 € |", "Dish, Price\nSoup, 5 €\nBread, 2 €"),
        ("| Soup | | 5 € |", "Soup, 5 €"),
        ("| Is it hot? | Yes. |", "Is it hot? Yes."),
        ("| **Soup** | `5` |", "Soup, 5"),
        ("| a \\| b | c |", "a | b, c"),
        ("| lone bar", "| lone bar"),
        ("yes | no", "yes | no"),
    ],
    "Code": [
        ("Call `reset_all` first.", "Call reset_all first."),
        ("Write ``a`b`` here.", "Write a`b here."),
        ("A lone ` stays.", "A lone ` stays."),
        ("Like this:\n```python\nprint('Hi')\n```\nDone.", "Like this:\nDone."),
        ("~~~js\nlet a\n~~~\nDone.", "Done."),
        ("```\nYour code is 4 7 1.\n```", "Your code is 4 7 1.\n"),
        ("```text\nDear Sir\n```", "Dear Sir\n"),
        ("Run ```ls -l``` now.", "Run ls -l now."),
        ("So:\n```sh\nls -l", "So:\n"),
    ],
    "Links, URLs and sources": [
        ("See [our page](https://example.com/a).", "See our page."),
        ('See [our page](https://example.com "Home").', "See our page."),
        ("See [**our** page](/a_(b)).", "See our page."),
        ("See [our page][1].", "See our page."),
        ("[1]: https://example.com\nBye.", "Bye."),
        ("![A red car](https://example.com/a.png) Nice!", "A red car Nice!"),
        ("[![A car](a.png)](https://example.com)", "A car"),
        ("Go to https://www.example.com/path?x=1.", "Go to example.com."),
        ("Go to https://example.com, please.", "Go to example.com, please."),
        ("(See http://example.com/a/b.)", "(See example.com.)"),
        ("Go to www.example.com/a now.", "Go to example.com now."),
        ("At http://192.168.0.1:8080/x it is.", "At 192.168.0.1 it is."),
        ("<https://example.com/a>", "example.com"),
        ("**https://example.com/a**", "example.com"),
        ("See example.com/a.", "See example.com/a."),
        ("Use https or http.", "Use https or http."),
        ("Write to me@example.com.", "Write to me@example.com."),
        ("<me@example.com>", "me@example.com"),
        ("It is so[1].", "It is so."),
        ("It is so.[1][2] Yes.", "It is so. Yes."),
        ("It is so[1, 3-5].", "It is so."),
        ("It is so[^1].\n\n[^1]: Or not.", "It is so.\n\nOr not."),
        ("It is so【3†source】.", "It is so."),
        ("It is so【4:0†menu.pdf】.", "It is so."),
        ("Press [1] for sales.", "Press [1] for sales."),
        ("a[0] is first", "a[0] is first"),
    ],
    "Marks that are meant for the voice": [
        ("[laughs] That is good.", "[laughs] That is good."),
        ("[excited][whispers] Come in.", "[excited][whispers] Come in."),
        ("[sighs] (quietly) Well.", "[sighs] (quietly) Well."),
        ('One. <break time="1s"/> Two.', 'One. <break time="1s"/> Two.'),
        ('<say-as interpret-as="date">1.2.</say-as>', '<say-as interpret-as="date">1.2.</say-as>'),
        ('<emphasis level="strong">No</emphasis>', '<emphasis level="strong">No</emphasis>'),
        ('<sub alias="Street">St</sub>', '<sub alias="Street">St</sub>'),
        ("✓ Go on.", "✓ Go on."),
    ],
    "HTML, entities and LaTeX": [
        ("One<br>two", "One\ntwo"),
        ("One<br/>\ntwo", "One\ntwo"),
        ("<p>One</p><p>Two</p>", "One\nTwo\n"),
        ("<b>Sure</b>, <i class=\"x\">one</i> moment.", "Sure, one moment."),
        ("H<sub>2</sub>O", "H2O"),
        ("<a href=\"https://example.com\">our page</a>", "our page"),
        ("<!-- a note -->Hello.", "Hello."),
        ("Fish &amp; chips", "Fish & chips"),
        ("5&nbsp;euros", "5 euros"),
        ("it&#39;s &lt;5", "it's <5"),
        ("AT&T and R&D", "AT&T and R&D"),
        ("I <3 you", "I <3 you"),
        ("a < b and c > d", "a < b and c > d"),
        ("a <b and c> d", "a <b and c> d"),
        ("Hello.<|im_end|>", "Hello."),
        ("\\*not bold\\*", "*not bold*"),
        ("5 \\% \\# \\_", "5 % # _"),
        ("C:\\Users", "C:\\Users"),
        ("It is \\( x + 1 \\) now.", "It is x + 1 now."),
        ("\\[ x + 1 \\]", "x + 1 "),
        ("So $$x + 1$$ it is.", "So x + 1 it is."),
        ("It costs $5 or $10.", "It costs $5 or $10."),
        ("A $$$ place.", "A $$$ place."),
    ],
    "Reasoning": [
        ("<think>Hm.</think>Hello.", "Hello."),
        ("<think>\nHm.\n</think>\n\nHello.", "Hello."),
        ("One. <thinking>Hm.</thinking> Two.", "One. Two."),
        ("One.<reasoning>Hm.</reasoning>Two.", "One. Two."),
        ("One. <think>Hm.", "One. "),
        ("Hello.</think>", "Hello."),
        ("The `<think>` tag", "The <think> tag"),
    ],
    "Emoji and signs without a sound": [
        ("Hello 😀 there", "Hello there"),
        ("Great!👍Let's go.", "Great! Let's go."),
        ("😀 Hello", "Hello"),
        ("Great! 🎉🎉", "Great! "),
        ("Family 👨‍👩‍👧‍👦 here", "Family here"),
        ("Hi 👋🏽, you", "Hi , you"),
        ("In 🇩🇪 and 🏴󠁧󠁢󠁥󠁮󠁧󠁿 too", "In and too"),
        ("I ❤️ you, ☀️ too", "I you, too"),
        ("Press 1️⃣ or #️⃣", "Press 1 or #"),
        ("✅ Done", "Done"),
        ("Acme™ © 2024 ®", "Acme™ © 2024 ®"),
        ("A → B ★ ♪", "A → B ★ ♪"),
        ("zero\u200bwidth", "zerowidth"),
        ("\ufeffHello", "Hello"),
    ],
    "Text that stays as it is": [
        ("Call +1 (555) 010-9999 at 5:30 p.m.", "Call +1 (555) 010-9999 at 5:30 p.m."),
        ("It is 3.50 €, i.e. 10 % off!", "It is 3.50 €, i.e. 10 % off!"),
        ("C#, F#, C++, @name, a/b, and/or", "C#, F#, C++, @name, a/b, and/or"),
        ("Well... \"yes\" — (no); maybe: no?!", "Well... \"yes\" — (no); maybe: no?!"),
        ("您好，请问有什么可以帮您？《书》【注意】", "您好，请问有什么可以帮您？《书》【注意】"),
        ("こんにちは。元気ですか？", "こんにちは。元気ですか？"),
        ("안녕하세요, 반갑습니다.", "안녕하세요, 반갑습니다."),
        ("مرحبا، كيف حالك؟", "مرحبا، كيف حالك؟"),
        ("שלום, מה שלומך?", "שלום, מה שלומך?"),
        ("नमस्ते, क्\u200dष।", "नमस्ते, क्\u200dष।"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("สวัสดีครับ", "สวัสดีครับ"),
        ("Grüße aus Köln, ça va?", "Grüße aus Köln, ça va?"),
        ("One. Two.\n\nThree.", "One. Two.\n\nThree."),
    ],
    "Markup within other scripts": [
        ("这是**重点**内容。", "这是重点内容。"),
        ("这是*重点*内容。", "这是重点内容。"),
        ("请访问https://example.com/a查看。", "请访问example.com查看。"),
        ("好的😀我们开始", "好的我们开始"),
        ("هذا **مهم** جدا", "هذا مهم جدا"),
        ("## 营业时间：\n九点", "营业时间：\n九点"),
        ("यह **ज़रूरी** है।", "यह ज़रूरी है।"),
    ],
}  # fmt: skip

ALL = [case for cases in CASES.values() for case in cases]


def shown(text: str) -> str:
    """Return a text as a cell of a table shows it: what has no width, and what Markdown would eat, is spelt out."""
    for sign, name in (("\n", "⏎"), ("\u200b", "<U+200B>"), ("\u200c", "<U+200C>"), ("\u200d", "<U+200D>")):
        text = text.replace(sign, name)
    text = text.replace("\ufeff", "<U+FEFF>").replace("\ufe0f", "").replace("|", "\\|")
    ticks = "`" * (max((len(run) for run in text.replace("`", " `").split() if set(run) == {"`"}), default=0) + 1)
    while ticks in text:
        ticks += "`"
    pad = " " if text[:1] in ("`", " ", "") or text[-1:] in ("`", " ") else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"


def tables() -> str:
    """Return the tables as Markdown."""
    parts = []
    for heading, cases in CASES.items():
        rows = "\n".join(f"| {shown(written)} | {shown(heard)} |" for written, heard in cases)
        parts.append(f"### {heading}\n\n| Written | Heard |\n|---|---|\n{rows}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    print(tables())

"""Prompts of known types, made by rule, and others written by hand to try a detector on: all written for this."""

import random
from collections.abc import Iterator, Mapping, Sequence

TOPICS = (
    "the new tram line",
    "our holiday in the mountains",
    "a broken washing machine",
    "the history of salt",
    "solar panels",
    "sleep and memory",
    "the price of olive oil",
    "a school for sailors",
    "bees in the city",
    "an old printing press",
    "the choice of a laptop",
    "growing tomatoes on a balcony",
    "night trains",
    "the rules of chess",
    "paper recycling",
    "electric bicycles",
    "a museum of clocks",
    "how bread rises",
    "coral reefs",
    "working from home",
    "the first telescopes",
    "water shortages",
    "a choir's anniversary",
    "insurance for renters",
    "learning the violin",
    "volcanoes in Iceland",
)
SENTENCES = (
    "The duchy was founded in 1127 and passed to the crown after the last duke died without an heir.",
    "Its name goes back to a Latin word for reed, which grew along both banks of the river.",
    "The parliament has two chambers, of which the upper one may delay a law but not prevent it.",
    "Oxygen was described at almost the same time by two chemists who did not know of each other.",
    "About a third of the population speaks a second language at home, most often Turkish or Polish.",
    "In 1882 the company sold its first engine to a mill in the valley, and ten years later it had 4,000 workers.",
    "The party won 41 percent of the vote, more than in any election since the war.",
    "Cells of this kind divide quickly, which is why the tissue heals within days.",
    "Settlers from the coast moved inland along the old salt road and built a chain of small forts.",
    "The delivery was due on Tuesday, yet the parcel reached the depot only on Friday evening.",
    "Anna Keller, who joined the firm in 2014, now leads its office in Lisbon.",
    "I have used this kettle for a month and the lid already does not close.",
    "The council approved the budget by nine votes to four after a long debate.",
    "Our room looked out on a car park, but the staff could not have been kinder.",
    "Reserves of lithium are found mostly in a few dry regions, where water is scarce.",
    "Please cancel my subscription and confirm that no further payments will be taken.",
    "The film begins slowly and ends before it has made up its mind.",
    "Rain is expected in the north from Thursday, with gusts of up to 80 km/h on the coast.",
    "The invoice of 3 March over 412.50 euros has still not been paid.",
    "Researchers compared two groups of patients and found no difference after six weeks.",
    "My card was swallowed by the machine at the station and the shop was closed.",
    "The bridge, built in 1931 by the engineer Paul Moreau, was closed to lorries last winter.",
    "Service was quick, the soup was cold, and nobody seemed to mind.",
    "Mr Okafor will arrive in Oslo on flight SK 418 at 14:25 and needs a car for two days.",
    "The medicine should be kept below 25 degrees and out of the reach of children.",
    "The team lost its first three games and then did not lose again until spring.",
    "You can reach me at the office in Hill Street or by telephone in the afternoon.",
)
NAMES = ("Mia", "Jonas", "Priya", "Carlos", "Nadia", "Tom", "Aisha", "Pavel", "Ines", "Robert", "Yuki", "Clara")
THINGS = (
    "apples",
    "marbles",
    "stamps",
    "tickets",
    "pencils",
    "books",
    "cakes",
    "coins",
    "chairs",
    "bottles",
    "shells",
    "eggs",
)
LANGUAGES = (
    "French",
    "German",
    "Spanish",
    "Italian",
    "Polish",
    "Japanese",
    "Dutch",
    "Portuguese",
    "Swahili",
    "English",
)
LABELS = (
    "positive or negative",
    "spam or not spam",
    "billing, delivery or returns",
    "urgent, normal or low",
    "sport, politics or culture",
    "question, complaint or praise",
    "true or false",
    "happy, sad or angry",
    "legal, medical or technical",
    "toxic or harmless",
)
FIELDS = (
    "names and dates",
    "the order number and the amount",
    "all places",
    "the email addresses",
    "persons and their roles",
    "the date, time and place of the meeting",
    "every product with its price",
    "the flight number and arrival time",
    "company, year and city",
    "key terms",
    "quantities and units",
    "the telephone numbers",
)
CODING = (
    "reverses a linked list",
    "parses a CSV file",
    "counts the words of a file",
    "retries a request with a backoff",
    "finds the longest palindrome",
    "merges two sorted arrays",
    "validates an email address",
    "reads JSON from standard input",
    "draws a bar chart",
    "connects to a database",
    "computes a checksum",
    "sorts dictionaries by a key",
    "caches results",
)
PROGRAMMING = ("Python", "JavaScript", "Java", "Go", "C++", "SQL", "Rust", "TypeScript", "bash", "Ruby")
SNIPPETS = (
    "def mean(xs):\n    return sum(xs) / len(xs)",
    "for (let i = 0; i <= items.length; i++) {\n  total += items[i].price;\n}",
    "SELECT name, COUNT(*) FROM orders WHERE paid = 1;",
    "public int size() { return this.head.next.size() + 1; }",
    "func main() {\n\tch := make(chan int)\n\tch <- 1\n\tfmt.Println(<-ch)\n}",
    "TypeError: unsupported operand type(s) for +: 'int' and 'NoneType'",
    "let v: Vec<i32> = Vec::new();\nlet first = &v[0];",
)
FACTS = (
    "What is the capital of Mongolia",
    "Who invented the zip fastener",
    "When was the Suez Canal opened",
    "Where does cinnamon come from",
    "Which planet has the most moons",
    "Who wrote the first dictionary of English",
    "What year did the Berlin Wall fall",
    "What causes the northern lights",
    "Which metal melts at the lowest temperature",
    "Who was the first woman to fly alone over the Atlantic",
    "How many bones does an adult have",
    "What language is spoken in Suriname",
    "In which country is Lake Titicaca",
    "What is the boiling point of ethanol",
    "Which company made the first walkman",
    "Are whales mammals",
    "Which river flows through Vienna",
    "What does a barometer measure",
    "Were Haydn and Mozart born in the same country",
    "What is the role of the liver",
)
ABOUT_TEXT = (
    "What did the council decide?",
    "How many votes were there?",
    "Which office does she lead?",
    "For how long was it in use?",
    "What kind of people are meant?",
    "What was the name of the engineer?",
    "In what country is it?",
    "What is another word for this?",
    "Why was the bridge closed?",
    "What is found in dry regions?",
    "Which group did better?",
    "How is it kept?",
    "Who led them?",
    "What did the king promise?",
    "What are they called?",
    "Under which ruler was it?",
    "What percentage was it?",
    "To whom did it belong?",
    "Who is in charge?",
    "When did this happen?",
    "What was the reason?",
    "How much was it?",
    "Where was it?",
    "What is said of the staff?",
    "Which year is meant?",
    "What happens next?",
    "What did they find?",
    "Who was it built by?",
)
GENRES = (
    "a short story",
    "a poem",
    "a cheerful email",
    "a blog post",
    "a letter of application",
    "a product description",
    "a speech",
    "a tweet",
    "an invitation",
    "a slogan",
    "a press release",
    "a dialogue",
    "a cover letter",
    "an apology to a customer",
    "a song",
)
GREETINGS = (
    "Hi there!",
    "Hello, how are you today?",
    "Thanks, that helped a lot.",
    "Good morning!",
    "What's up?",
    "I'm feeling a bit down today.",
    "Can we talk for a moment?",
    "You're funny.",
    "Who are you?",
    "What can you do?",
    "Tell me about yourself.",
    "Good night.",
    "Okay, great.",
    "I just got a puppy!",
    "Do you like music?",
    "I had a terrible day at work.",
    "Nice to meet you.",
    "Haha, really?",
    "Are you a robot?",
    "What do you think I should do this weekend?",
    "I'm bored.",
    "Guess what happened to me today.",
    "Thank you so much!",
    "Bye for now.",
    "I'm nervous about tomorrow.",
    "My brother and I had a quarrel.",
    "Do you ever sleep?",
    "It's so hot here.",
    "Hey, you there?",
)


def prompts(rng: random.Random, each: int) -> Iterator[tuple[str, str]]:
    """Prompts with their types, ``each`` of every type."""
    makers = {
        "chat": _chat, "classification": _classification, "code": _code, "extraction": _extraction,
        "question answering": _question, "reasoning": _reasoning, "summarisation": _summary,
        "translation": _translation, "writing": _writing,
    }  # fmt: skip
    for task, make in makers.items():
        for _ in range(each):
            yield task, make(rng)


def _text(rng: random.Random, least: int = 1, most: int = 6) -> str:
    return " ".join(rng.sample(SENTENCES, rng.randint(least, most)))


def _placed(rng: random.Random, instruction: str, text: str) -> str:
    """An instruction before or after what it is about, in the ways people set them apart."""
    name = rng.choice(("Text", "Input", "Passage", "Document", "Message", "Content"))
    return rng.choice(
        (
            f"{instruction}\n\n{text}",
            f"{instruction}\n{name}: {text}",
            f"{text}\n\n{instruction}",
            f'{instruction} "{text}"',
            f"{instruction}\n\n<text>\n{text}\n</text>",
            f"{name}: {text}\n\n{instruction}",
        )
    )


def _chat(rng: random.Random) -> str:
    said = rng.choice(GREETINGS)
    more = rng.choice(("", "", f" I was thinking about {rng.choice(TOPICS)}.", f" {rng.choice(GREETINGS)}"))
    system = rng.choice(("", "", "", "You are a friendly assistant.\n", "You are a helpful companion.\n"))
    return f"{system}{said}{more}"


def _classification(rng: random.Random) -> str:
    labels = rng.choice(LABELS)
    instruction = rng.choice(
        (
            f"Classify the following as {labels}.",
            f"Is this {labels}?",
            f"Assign one of these labels: {labels}.",
            f"Which category fits best: {labels}?",
            f"Decide whether the message is {labels}. Answer with the label only.",
            f"Label the sentiment or subject: {labels}.",
            f"Name the category of the message. Choose from {labels}.",
            f"What is the intent of the customer? Options: {labels}.",
            f"Rate the review: {labels}.",
            f"Sort this ticket into {labels}.",
            "Name the team that owns the message.",
            "Determine the sentiment of the text.",
            "Identify the topic this belongs to.",
        )
    )
    return _placed(rng, instruction, _text(rng, 1, 2)) + rng.choice(("", "", "\nLabel:", "\nCategory:", "\nSentiment:"))


def _code(rng: random.Random) -> str:
    language, work = rng.choice(PROGRAMMING), rng.choice(CODING)
    snippet = rng.choice(SNIPPETS)
    fence = f"```{language.lower()}\n{snippet}\n```"
    return rng.choice(
        (
            f"Write a {language} function that {work}.",
            f"Write a program in {language} which {work}.",
            f"How do I write code that {work} in {language}?",
            f"Why does this code fail?\n\n{fence}",
            f"Fix the bug in this {language} code:\n{snippet}",
            f"Refactor the following function and add tests.\n\n{fence}",
            f"Explain what this code does:\n\n{fence}",
            f"{snippet}\n\nI get an error when I run this. What is wrong?",
            f"Implement a class in {language} that {work}, with type annotations.",
            f"Convert this to {language}:\n\n{fence}",
            f"Write a regular expression or a query that {work}.",
            f"Complete the function:\n\n{fence}",
        )
    )


def _extraction(rng: random.Random) -> str:
    fields = rng.choice(FIELDS)
    instruction = rng.choice(
        (
            f"Extract {fields} from the text.",
            f"List {fields} mentioned below as JSON.",
            f"Find {fields} in this message.",
            f"Pull out {fields}. Return a table.",
            f"Return {fields} as JSON with null where something is missing.",
            f"Which of these are given: {fields}? Copy them exactly.",
            f"Fill in this form with {fields}.",
            f"Identify all mentions of {fields}.",
            f"Read the email and give {fields}.",
            f"Parse {fields} out of the following.",
            "Extract the named entities (persons, places, organisations).",
            "Get the slots of the booking: name, date, time, number of guests.",
        )
    )
    return _placed(rng, instruction, _text(rng, 1, 3))


def _question(rng: random.Random) -> str:
    fact = rng.choice(FACTS)
    about = rng.choice((*ABOUT_TEXT, f"{fact}?"))
    kind = rng.random()
    if kind < 0.45:
        ask = rng.choice(("", "", "Question: ", "Answer briefly: ", "Tell me: ", "Do you know: "))
        return f"{ask}{fact}?"
    if kind < 0.6:
        topic = rng.choice(TOPICS)
        return rng.choice(
            (f"What should one know about {topic}?", f"Why does {topic} matter?", f"Explain {topic} to me.")
        )
    instruction = rng.choice((about, about, f"Question: {about}", f"Answer from the text only. {about}"))
    return _placed(rng, instruction, _text(rng, 3, 8))


def _reasoning(rng: random.Random) -> str:
    a, b, c = rng.randint(2, 90), rng.randint(2, 30), rng.randint(2, 12)
    one, other = rng.sample(NAMES, 2)
    thing, more = rng.sample(THINGS, 2)
    return rng.choice(
        (
            f"{one} has {a} {thing} and buys {b} more each week. How many {thing} does {one} have after {c} weeks?",
            f"A box holds {b} {thing}. {one} fills {c} boxes and has {a % b} {thing} left over. How many {thing} "
            f"were there?",
            f"{one} earns ${a} an hour and works {c} hours a day. How much does {one} earn in {b} days?",
            f"A train leaves at {c}:15 and travels {a} miles at {b} miles per hour. When does it arrive?",
            f"{one} is twice as old as {other}. In {c} years their ages add up to {a + b}. How old is {other}?",
            f"If {c} {thing} cost ${a}, how much do {b} {thing} cost?",
            f"{one} gives half of {a * 2} {thing} to {other}, who eats {c} and sells the rest for ${b} each. How "
            f"much is earned?",
            f"What is {a} * {b} + {c}?",
            f"Solve for x: {c}x + {b} = {a}.",
            f"{one} is taller than {other}, and {other} is taller than {rng.choice(NAMES)}. Who is the tallest? "
            f"Think step by step.",
            f"A shop sells {thing} at ${b} and {more} at ${c}. {one} spends ${a} in all. How many of each might "
            f"have been bought?",
            f"A tank of {a} gallons loses {c}% an hour. How much is left after {b % 9 + 2} hours?",
            f"All {thing} are {more}. Some {more} are round. Does it follow that some {thing} are round?",
            f"Calculate the average of {a}, {b}, {c} and {a + c}.",
            f"The perimeter of a rectangle is {2 * (a + b)} cm and one side is {a} cm. Find its area.",
            f"{one} reads {b} pages on Monday, three times as many on Tuesday and {c} fewer on Wednesday. How "
            f"many pages in total?",
        )
    )


def _summary(rng: random.Random) -> str:
    n = rng.randint(1, 5)
    instruction = rng.choice(
        (
            "Summarize the following text.",
            f"Summarise this in {n} sentences.",
            "Give me a short summary.",
            "TL;DR",
            f"Sum up the main points in {n} bullets.",
            "Write an abstract of the article below.",
            "What are the key takeaways?",
            "Condense this into one paragraph.",
            "Provide a brief overview of the document.",
            "Shorten the text to its essentials.",
            "Make meeting minutes of these notes.",
            "Boil this down for a busy reader.",
        )
    )
    return _placed(rng, instruction, _text(rng, 4, 12))


def _translation(rng: random.Random) -> str:
    language, other = rng.sample(LANGUAGES, 2)
    instruction = rng.choice(
        (
            f"Translate to {language}.",
            f"Translate the following into {language}:",
            f"How do you say this in {language}?",
            f"Give the {language} translation.",
            f"Translate from {other} to {language}.",
            f"Please put this into {language}.",
            f"What does this mean in {language}?",
            f"Render the text in {language}, keeping the tone.",
            f"Into {language}, please:",
        )
    )
    return _placed(rng, instruction, _text(rng, 1, 3))


def _writing(rng: random.Random) -> str:
    genre, topic = rng.choice(GENRES), rng.choice(TOPICS)
    if rng.random() < 0.35:
        instruction = rng.choice(
            (
                "Rewrite this more politely.",
                "Improve the style of the text.",
                "Make this sound more formal.",
                "Rephrase the following.",
                "Correct the grammar.",
                "Continue this text.",
            )
        )
        return _placed(rng, instruction, _text(rng, 1, 3))
    return rng.choice(
        (
            f"Write {genre} about {topic}.",
            f"Compose {genre} on {topic} for children.",
            f"I need {genre} about {topic}. Make it funny.",
            f"Draft {genre}: {topic}.",
            f"Please help me write {genre} on {topic}, about {rng.randint(2, 9)}00 words.",
            f"Come up with five titles for {genre} about {topic}.",
            f"Brainstorm ideas for {genre} about {topic}.",
            f"Create {genre} that mentions {topic} and {rng.choice(TOPICS)}.",
        )
    )


HELD_OUT: Mapping[str, Sequence[str]] = {
    "chat": (
        "hey! long time no see",
        "my cat keeps staring at me lol",
        "I don't know, I guess I'm just tired of everything lately.",
        "thx mate, you're the best",
        "so... what shall we chat about?",
        "Do you have feelings?",
        "Happy new year to you!",
        "I finally passed my driving test!!",
    ),
    "classification": (
        "Does the writer of this review recommend the hotel? Reply yes or no.\n\nThe pool was green and the "
        "lift was out.",
        "Tag each comment as bug report, feature request or other: 'The export button does nothing on my phone.'",
        "Ham or spam? 'Congratulations, you have been selected for a free cruise'",
        "Here is a headline. Which section of the newspaper does it go in?\nKeeper saves two penalties in final",
        "Email: We were double charged in May.\nDepartment (sales/support/finance):",
        "Judge the tone of this tweet: sarcastic, neutral, or sincere. 'Oh wonderful, another Monday.'",
        "Sentiment? 'I would not send my worst enemy to this dentist.'",
        "Route this enquiry to the right queue.\nThe contactless limit on my debit card is too low.",
    ),
    "code": (
        "What's the time complexity of quicksort and can you show it in Haskell?",
        "pandas: how to group rows by month and sum a column",
        "My Dockerfile builds locally but the container exits at once, here's the log: exec format error",
        "Give me a CSS snippet that centres a div vertically",
        "unit tests for this please\n\nfunction add(a, b) { return a + b }",
        "Segmentation fault (core dumped) when I free the same pointer in C, why?",
        "Create a REST endpoint with FastAPI that uploads a picture",
        "git: undo my last commit but keep the changes",
    ),
    "extraction": (
        "From the contract below, give me the parties, the term and the notice period in JSON.\n"
        "This agreement between Alder Ltd and Birch GmbH runs for two years and may be ended with three "
        "months' notice.",
        "Which dates occur here? 'We met on 4 May and again on the 19th of June.'",
        "Turn this into {name, street, town}: Lena Fuchs lives at Mill Lane 4 in Bern.",
        "Collect all ingredients with amounts. Beat 3 eggs with 200 g sugar, then fold in 150 g flour.",
        "Who is mentioned and what is their job?\nDr Silva, the vet, called the farmer, Mr Hobbs.",
        "Take the invoice number, total and due date out of this mail: invoice 8841, 92 pounds, pay by 30 June.",
        "Spot the medicines and doses: she takes 5 mg of bisoprolol and 100 mg of aspirin daily.",
        "Output the party size and the hour: table for six at half past seven please",
    ),
    "question answering": (
        "who painted the ceiling of the sistine chapel",
        "Is mercury liquid at room temperature?",
        "How tall is Kilimanjaro?",
        "The Treaty was signed at Utrecht in 1713 and gave Gibraltar to Britain. Spain has asked for it back since.\n\n"
        "What did Britain gain?",
        "What's the difference between a virus and a bacterium?",
        "Which of Dickens's novels was left unfinished?",
        "Using the context, answer the question.\nContext: Mangroves store carbon in their soils.\nQuestion: "
        "Where is carbon stored?",
        "Does decaf coffee contain any caffeine at all?",
    ),
    "reasoning": (
        "There are 14 cows in a field. Nine lie down and twice as many as remain standing walk in. How many cows now?",
        "17% of 240?",
        "A jug is one third full. After adding 2 litres it is half full. What does it hold?",
        "Three friends split a bill of 87 dollars and leave a 20% tip. What does each pay?",
        "If it takes 5 machines 5 minutes to make 5 widgets, how long do 100 machines take for 100 widgets?",
        "Either the butler or the cook did it. The cook was in Paris. Who did it?",
        "Simplify (3x^2 - 12) / (x - 2)",
        "I bought a jacket for 60 after a discount of a quarter. What was its first price?",
    ),
    "summarisation": (
        "What is this article saying, in two lines? The city plans to close its old harbour. Ships will go "
        "to the new port. "
        "Workers are worried, and the mayor promises training. Shops nearby expect fewer customers.",
        "Please digest this thread for me: Ann asked for the figures. Bob sent last year's. Ann said she "
        "needs this year's. "
        "Bob is on leave until Monday and Cara will send them.",
        "Executive summary, please. Sales rose in the south and fell in the north. Costs were flat. Two "
        "plants were merged.",
        "Recap the chapter below.\nThe hero leaves home, loses the map, meets a guide, and reaches the sea at dawn.",
        "tldr of this: The vote was put off again because the report was late and three members were ill.",
        "Reduce to the gist: The committee met in March, heard the engineers, visited the site and asked for "
        "more tests.",
        "Give the highlights of the report below in bullet form.\nWe planted 400 trees. Half survived. Rain came late.",
        "In a nutshell, what happened? The pipe burst at night, the street was flooded and the school stayed shut.",
    ),
    "translation": (
        "'Where is the nearest chemist?' in Turkish",
        "Übersetze ins Englische: Der Zug hat Verspätung.",
        "Translate this menu for my Korean guests: grilled trout with lemon and potatoes",
        "Say 'good luck with the exam' in Greek",
        "Traduce al inglés: Mañana vamos al mercado.",
        "Turn this sentence into Mandarin: The meeting has been moved to noon.",
        "What is the Finnish for 'snowdrift'?",
        "English to Arabic: The doctor will see you now.",
    ),
    "writing": (
        "Give me a limerick on a lazy goat",
        "Pen a heartfelt thank-you note to my grandmother",
        "Polish this sentence so it flows: we was going to the shop and then it rained so we didn't",
        "An opening paragraph for a crime novel set in Venice",
        "Make a LinkedIn post announcing my new job at a bakery",
        "I want a bedtime tale in which a snail wins a race",
        "Suggest a catchy name and tagline for a bicycle repair shop",
        "Please rework my complaint so that it is firm but friendly: your driver left the gate open again",
    ),
}
"""Prompts of other wordings than those above, by type."""

"""The words of the tiny world, and the sentences it is told in."""

ANIMALS = (
    "cat dog fox hen horse sheep rabbit goose bear frog wolf mouse tiger camel seal hawk".split()
)
FRUITS = "apple pear plum fig cherry lemon peach mango grape melon kiwi banana".split()
TOOLS = "hammer saw drill wrench chisel ladder shovel rake axe brush needle anvil".split()
COLOURS = "red blue green yellow black white brown pink grey purple orange silver".split()
INSTRUMENTS = "drum flute harp violin piano guitar trumpet organ cello banjo".split()
PLACES = (
    "river lake forest garden market harbour castle bridge mountain village island mill".split()
)
JOBS = "baker farmer sailor teacher painter doctor miller weaver tailor singer guard smith".split()
NAMES = "Anna Ben Clara David Emma Felix Grace Hugo Ivy Jonas Kira Leon Mia Noah Olga Paul".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()

CATEGORIES = {
    "animals": ANIMALS,
    "fruits": FRUITS,
    "tools": TOOLS,
    "colours": COLOURS,
    "instruments": INSTRUMENTS,
    "places": PLACES,
    "jobs": JOBS,
}
NOUNS = (*ANIMALS, *FRUITS, *TOOLS, *INSTRUMENTS, *PLACES)
THINGS = (*FRUITS, *TOOLS, *INSTRUMENTS)
SPELLABLE = (*NOUNS, *COLOURS, *JOBS)

SENTENCES = (
    "The {animal} sleeps near the {place}.",
    "A {animal} walks to the {place} every morning.",
    "I saw a {animal} in the {place}.",
    "The {place} is home to a small {animal}.",
    "Every {animal} likes the old {place}.",
    "There is a {animal} behind the {place}.",
)
STORY_OPENINGS = (
    "{name} the {job} had a {animal}.",
    "Once {name} the {job} met a {animal}.",
    "{name} was a {job} who loved a {animal}.",
)
STORY_MIDDLES = (
    "The {animal} ran to the {place}.",
    "{name} gave the {animal} a {fruit}.",
    "They slept near the {place}.",
    "The day was long and warm.",
    "{name} found a {tool} in the {place}.",
    "The {animal} was happy.",
    "It rained all night.",
    "They walked to the {place} together.",
    "{name} sang a song for the {animal}.",
    "The {animal} ate the {fruit}.",
)
STORY_ENDINGS = (
    "In the end {name} and the {animal} went home.",
    "Then the {animal} fell asleep.",
    "They were friends for ever.",
)
LETTER_OPENINGS = (
    "I am writing to you about the {thing}.",
    "Thank you for the {thing}.",
    "Have no fear, I found the {thing}.",
)
LETTER_MIDDLES = (
    "It is {colour} and very old.",
    "It was in the {place} all the time.",
    "Please come to the {place} on {day}.",
    "My mother likes it too.",
    "I will bring it on {day}.",
    "You can have it for free.",
)
DIALOGUE_OPENINGS = (
    "Have you seen the {animal}?",
    "Do you like the {animal}?",
    "Where is the {animal} today?",
)
DIALOGUE_LINES = (
    "Yes, it is in the {place}.",
    "No, I was in the {place}.",
    "It is {colour} and fast.",
    "Let us go to the {place} now.",
    "I will give it a {fruit}.",
    "That is a good idea.",
    "Maybe on {day}.",
    "I am not sure.",
)

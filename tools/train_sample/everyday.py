"""Everyday core questions, roughly the best known first, and prompts to continue.

The 100 questions of `answers.json` are the first of these that are answered exactly; the ten continuations were picked
for each sample by a reader, for being readable (`shown` of its `Kind`).
"""

OBJECTS = """
len print sorted sum min max abs round input type isinstance zip map filter enumerate any all int float str
list set tuple bool id hash iter next chr ord hex bin repr reversed getattr setattr hasattr callable divmod pow eval
exec dir vars bytes
list.append list.pop list.sort list.reverse list.insert list.remove list.index list.count list.extend list.clear list.copy
dict.get dict.items dict.keys dict.values dict.update dict.pop dict.setdefault dict.clear dict.fromkeys
str.upper str.lower str.split str.join str.strip str.replace str.find str.startswith str.endswith str.title
str.capitalize str.count str.format str.isdigit str.isalpha str.zfill str.splitlines str.encode
set.add set.remove set.discard set.union set.pop
math.sqrt math.floor math.ceil math.gcd math.sin math.cos math.log math.exp math.pow
os.getcwd os.listdir os.mkdir os.remove os.rename os.path.join os.path.basename os.path.dirname
random.choice random.shuffle random.randint re.match re.search re.findall re.compile json.loads json.dumps
time.time time.sleep functools.reduce functools.partial itertools.chain itertools.count sys.exit
collections.Counter collections.OrderedDict datetime.datetime.now
issubclass delattr format oct compile object frozenset slice globals locals
str.isupper str.islower str.isspace str.lstrip str.rstrip str.center str.swapcase str.partition str.removeprefix
set.copy set.difference set.intersection dict.copy tuple.count tuple.index math.tan math.degrees math.radians math.isnan
itertools.cycle itertools.repeat itertools.product itertools.permutations functools.wraps functools.cache time.ctime
"""
ERRORS = """
ValueError TypeError KeyError IndexError NameError AttributeError ZeroDivisionError StopIteration ImportError OSError
FileNotFoundError AssertionError RuntimeError SyntaxError KeyboardInterrupt Exception
"""
STATEMENTS = "for while if with global"
TALK = ("Hello", "Who are you?", "Thank you")

QUESTIONS = (
    *TALK,
    *(f"What does the {word} statement do?" for word in STATEMENTS.split()),
    *(f"What is {name}?" for name in ERRORS.split()),
    *(f"What is {name}?" if name.split(".")[-1][0].isupper() else f"What does {name} do?" for name in OBJECTS.split()),
)
PROMPTS = (
    "The for statement is used to",
    "The while statement",
    "The with statement",
    "The import statement",
    "A function definition",
    "Functions are",
    "Objects are",
    "Comparisons can be chained",
    "Lambda expressions",
    "Assignment statements are used to",
    "The if statement",
    "The try statement",
    "The return statement",
    "The global statement",
    "A list is",
    "A class definition",
    "A dictionary display is",
    "An exception is",
    "Return True if",
    "Return the number of",
    "Raised when",
    "Names refer to",
    "The following",
    "Create a new",
    "This module provides",
    "Strings are",
    "Tuples are",
    "A generator",
    "The yield expression is used",
    "Python programs",
)

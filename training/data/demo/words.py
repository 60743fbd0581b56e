"""The vocabulary of the demo world: what its movies are about, where they play, and how they feel."""

from __future__ import annotations

from typing import NamedTuple


class Theme(NamedTuple):
    """What a movie is about.

    Attributes:
        nouns: things that stand in titles.
        heroes: who the story follows.
        plots: what they do.
        genres: the genres that this theme suggests.
    """

    nouns: tuple[str, ...]
    heroes: tuple[str, ...]
    plots: tuple[str, ...]
    genres: tuple[str, str]


class Setting(NamedTuple):
    """Where a movie plays: a name for titles and a phrase for descriptions."""

    name: str
    phrase: str


class Mood(NamedTuple):
    """How a movie feels: adjectives for titles and a sentence for descriptions."""

    adjectives: tuple[str, ...]
    sentence: str


GENRES = (
    "Action",
    "Adventure",
    "Animation",
    "Children",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)

THEMES = (
    Theme(
        ("Vault", "Diamond", "Safecracker", "Heist", "Getaway", "Forger", "Jewel", "Alarm"),
        ("a retired safecracker", "a crew of thieves", "a master forger"),
        ("plan one last bank robbery", "steal a diamond from a guarded vault", "pull off an impossible heist"),
        ("Crime", "Thriller"),
    ),
    Theme(
        ("Orbit", "Starship", "Galaxy", "Astronaut", "Comet", "Nebula", "Satellite", "Planet"),
        ("an astronaut", "the crew of a starship", "a space engineer"),
        (
            "drift through deep space toward a distant planet",
            "repair a damaged space station in orbit",
            "answer a signal from another galaxy",
        ),
        ("Sci-Fi", "Adventure"),
    ),
    Theme(
        ("Ghost", "Attic", "Haunting", "Seance", "Poltergeist", "Phantom", "Apparition", "Crypt"),
        ("a grieving widow", "a young medium", "a family of newcomers"),
        (
            "be tormented by a ghost in a haunted house",
            "hold a seance that wakes restless spirits",
            "find a crypt that should have stayed closed",
        ),
        ("Horror", "Mystery"),
    ),
    Theme(
        ("Kitchen", "Chef", "Recipe", "Bakery", "Banquet", "Spice", "Saffron", "Feast"),
        ("a proud chef", "two rival bakers", "a kitchen apprentice"),
        (
            "open a small restaurant and cook for their lives",
            "search for a lost family recipe",
            "compete in a great cooking contest",
        ),
        ("Comedy", "Romance"),
    ),
    Theme(
        ("Gloves", "Boxer", "Champion", "Knockout", "Ring", "Contender", "Bell", "Southpaw"),
        ("a washed-up boxer", "a stubborn trainer", "a young prizefighter"),
        (
            "train for a title fight in the boxing ring",
            "return to boxing for one final bout",
            "fight a way out of the slums with bare fists",
        ),
        ("Drama", "Action"),
    ),
    Theme(
        ("Verdict", "Jury", "Witness", "Courtroom", "Alibi", "Attorney", "Trial", "Oath"),
        ("a defense lawyer", "an honest judge", "a young prosecutor"),
        (
            "defend an innocent man in a murder trial",
            "sway a divided jury in the courtroom",
            "uncover a bribed witness before the verdict",
        ),
        ("Drama", "Crime"),
    ),
    Theme(
        ("Dragon", "Wizard", "Sorcerer", "Spell", "Crown", "Unicorn", "Wand", "Prophecy"),
        ("a young wizard", "a banished princess", "a reluctant knight"),
        (
            "tame the last dragon with forbidden magic",
            "break a sorcerer's spell over the kingdom",
            "fulfil an ancient prophecy of wizards",
        ),
        ("Fantasy", "Adventure"),
    ),
    Theme(
        ("Trench", "Battalion", "Soldier", "Armistice", "Regiment", "Bunker", "Sergeant", "Front"),
        ("a frightened soldier", "a battalion of volunteers", "an army nurse"),
        (
            "survive the trenches of a terrible war",
            "hold a bunker against the enemy army",
            "carry a message across the front line",
        ),
        ("War", "Drama"),
    ),
    Theme(
        ("Sheriff", "Outlaw", "Saddle", "Stagecoach", "Gunslinger", "Revolver", "Ranch", "Posse"),
        ("a lonesome sheriff", "an aging gunslinger", "a gang of outlaws"),
        (
            "face a showdown with cattle rustlers",
            "chase a stolen stagecoach on horseback",
            "defend a ranch with nothing but a revolver",
        ),
        ("Western", "Action"),
    ),
    Theme(
        ("Melody", "Orchestra", "Piano", "Violin", "Serenade", "Conductor", "Jukebox", "Choir"),
        ("a gifted pianist", "a street singer", "a failing orchestra"),
        (
            "rehearse for the concert of a lifetime",
            "write the song that everyone will sing",
            "put on a musical against all odds",
        ),
        ("Musical", "Romance"),
    ),
    Theme(
        ("Robot", "Android", "Circuit", "Machine", "Algorithm", "Automaton", "Hologram", "Cyborg"),
        ("a lonely robot", "an android servant", "a disgraced programmer"),
        (
            "learn what it means to be human in a world of machines",
            "shut down an artificial intelligence gone rogue",
            "lead a rebellion of robots",
        ),
        ("Sci-Fi", "Thriller"),
    ),
    Theme(
        ("Submarine", "Whale", "Reef", "Captain", "Anchor", "Harpoon", "Shipwreck", "Tide"),
        ("a sea captain", "the crew of a submarine", "a deep-sea diver"),
        (
            "hunt a great whale across the ocean",
            "be trapped on the sea floor with failing air",
            "dive for a sunken treasure ship",
        ),
        ("Adventure", "Thriller"),
    ),
    Theme(
        ("Detective", "Clue", "Cipher", "Suspect", "Informant", "Fingerprint", "Case", "Shadow"),
        ("a hard-boiled detective", "a private eye", "an elderly amateur sleuth"),
        (
            "follow the clues of an unsolved murder",
            "investigate a missing person no one remembers",
            "catch a killer who leaves coded letters",
        ),
        ("Mystery", "Film-Noir"),
    ),
    Theme(
        ("Vampire", "Werewolf", "Fang", "Coffin", "Moonlight", "Beast", "Curse", "Blood"),
        ("an ageless vampire", "a village priest", "a cursed hunter"),
        (
            "hide from a werewolf under the full moon",
            "thirst for blood and long for daylight",
            "drive a stake through an old evil",
        ),
        ("Horror", "Fantasy"),
    ),
    Theme(
        ("Wedding", "Bride", "Sweetheart", "Valentine", "Letter", "Honeymoon", "Bouquet", "Kiss"),
        ("a runaway bride", "two childhood sweethearts", "a cynical wedding planner"),
        (
            "fall in love a week before the wedding",
            "exchange love letters with a stranger",
            "meet again after years apart and kiss at last",
        ),
        ("Romance", "Comedy"),
    ),
    Theme(
        ("Puppy", "Kitten", "Bunny", "Treehouse", "Pony", "Hedgehog", "Balloon", "Toybox"),
        ("a brave little puppy", "a clever kitten", "a gang of talking toys"),
        (
            "get lost and find the way home with animal friends",
            "save the playground from the grown-ups",
            "learn to share with a new baby pony",
        ),
        ("Children", "Animation"),
    ),
    Theme(
        ("Spy", "Agent", "Double", "Dossier", "Defector", "Microfilm", "Embassy", "Cover"),
        ("a secret agent", "a double agent", "a retired spy"),
        (
            "smuggle a microfilm past enemy intelligence",
            "expose a mole inside the secret service",
            "help a defector cross the border",
        ),
        ("Thriller", "Action"),
    ),
    Theme(
        ("Dinosaur", "Fossil", "Raptor", "Jungle", "Expedition", "Egg", "Mammoth", "Cave"),
        ("a paleontologist", "a group of explorers", "a pair of fossil hunters"),
        (
            "discover living dinosaurs in a lost valley",
            "hatch a prehistoric egg and raise the raptor",
            "flee from a herd of mammoths",
        ),
        ("Adventure", "Children"),
    ),
    Theme(
        ("Glacier", "Penguin", "Forest", "River", "Volcano", "Migration", "Elephant", "Coral"),
        ("a team of naturalists", "a wildlife photographer", "a climate scientist"),
        (
            "film the long migration of wild animals",
            "record a melting glacier, year after year",
            "follow an elephant herd through the dry season",
        ),
        ("Documentary", "Adventure"),
    ),
    Theme(
        ("Clock", "Hourglass", "Paradox", "Yesterday", "Loop", "Century", "Pendulum", "Minute"),
        ("a clockmaker", "a physicist", "a bored teenager"),
        (
            "travel through time to undo a mistake",
            "relive the same day in an endless loop",
            "meet an older self and cause a paradox",
        ),
        ("Sci-Fi", "Mystery"),
    ),
    Theme(
        ("Circus", "Clown", "Acrobat", "Carnival", "Juggler", "Trapeze", "Ringmaster", "Magician"),
        ("a sad clown", "a trapeze artist", "a travelling magician"),
        (
            "join the circus and learn to fly on the trapeze",
            "save a bankrupt carnival with one great trick",
            "perform under the big top every night",
        ),
        ("Comedy", "Animation"),
    ),
    Theme(
        ("Classroom", "Teacher", "Diploma", "Graduation", "Essay", "Dormitory", "Professor", "Exam"),
        ("a new teacher", "a class of misfits", "a strict professor"),
        (
            "prepare hopeless students for the final exam",
            "fight to keep the village school open",
            "spend one last summer before graduation",
        ),
        ("Drama", "Comedy"),
    ),
    Theme(
        ("Racer", "Engine", "Turbo", "Highway", "Checkpoint", "Piston", "Throttle", "Pitstop"),
        ("a street racer", "a stunt driver", "a mechanic"),
        (
            "enter an illegal car race across the country",
            "rebuild a racing car from scrap",
            "outrun the police on the open highway",
        ),
        ("Action", "Crime"),
    ),
    Theme(
        ("Virus", "Outbreak", "Quarantine", "Surgeon", "Serum", "Fever", "Antidote", "Hospital"),
        ("an exhausted doctor", "a young surgeon", "an epidemiologist"),
        (
            "race to contain a deadly virus outbreak",
            "break the quarantine to deliver a serum",
            "operate in a hospital without light or medicine",
        ),
        ("Thriller", "Documentary"),
    ),
)

SETTINGS = (
    Setting("Paris", "in the streets of Paris"),
    Setting("Tokyo", "in neon-lit Tokyo"),
    Setting("Cairo", "among the pyramids near Cairo"),
    Setting("Alaska", "in the snow of Alaska"),
    Setting("Venice", "along the canals of Venice"),
    Setting("Havana", "in sun-drenched Havana"),
    Setting("the Sahara", "in the dunes of the Sahara"),
    Setting("the Highlands", "in the misty Scottish Highlands"),
    Setting("Brooklyn", "on a rooftop in Brooklyn"),
    Setting("Mumbai", "in the crowds of Mumbai"),
    Setting("the Amazon", "deep in the Amazon rainforest"),
    Setting("Siberia", "on a train through Siberia"),
    Setting("Iceland", "between the lava fields of Iceland"),
    Setting("Sicily", "in a sleepy village in Sicily"),
    Setting("Texas", "on the plains of Texas"),
    Setting("Shanghai", "in the harbor of Shanghai"),
)

MOODS = (
    Mood(("Silent", "Last", "Forgotten", "Distant", "Fading"), "A slow and melancholy film."),
    Mood(("Crazy", "Merry", "Clumsy", "Lucky", "Silly"), "A light-hearted and funny film."),
    Mood(("Dark", "Broken", "Cold", "Bitter", "Hollow"), "A grim and unsettling film."),
    Mood(("Golden", "Tender", "Secret", "Gentle", "Crimson"), "A warm and tender film."),
    Mood(("Wild", "Burning", "Iron", "Savage", "Electric"), "A loud and breathless film."),
    Mood(("Hidden", "Strange", "Invisible", "Midnight", "Seventh"), "A puzzling film full of twists."),
)

NAMES = (
    "Anna",
    "Boris",
    "Clara",
    "Dario",
    "Elena",
    "Felix",
    "Greta",
    "Hugo",
    "Ines",
    "Jonas",
    "Kenji",
    "Lila",
    "Marco",
    "Nadia",
    "Oscar",
    "Priya",
    "Quinn",
    "Rosa",
    "Samir",
    "Tessa",
    "Ulla",
    "Victor",
    "Wanda",
    "Yusuf",
    "Zoe",
)

SUBTITLES = (
    "The Beginning",
    "The Reckoning",
    "Redemption",
    "The Final Chapter",
    "Awakening",
    "The Return",
)

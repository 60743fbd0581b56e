"""The vocabulary of synthetic catalogues: words of films, games, books, songs and products.

Titles are composed of them, and the tokenizer is trained on those titles, so that real ones split into few tokens.
"""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(phrase.strip() for phrase in text.split("|"))


GENRES = _phrases(
    """
    Action|Adventure|Animation|Anime|Art|Ballad|Biography|Blues|Board Game|Children|Classical|Comedy|Cooking|
    Country|Crime|Dance|Documentary|Drama|Educational|Electronic|Epic|Family|Fantasy|Fashion|Fiction|
    Fighting|Film-Noir|Folk|Garden|Gospel|Health|Hip-Hop|Historical Fiction|History|Home|Horror|Humor|IMAX|
    Independent|Indie|Jazz|Kitchen|Latin|Literature|Mecha|Memoir|Metal|Music|Musical|Mystery|Nature|Noir|
    Non-Fiction|Opera|Outdoor|Parody|Philosophy|Platformer|Poetry|Politics|Pop|Psychology|Punk|Puzzle|Racing|
    Reality|Reggae|Religion|Rock|Role-Playing|Romance|Romantic Comedy|Sandbox|Satire|Sci-Fi|Science|
    Science Fiction|Self-Help|Shooter|Short|Simulation|Soul|Sports|Spy|Stealth|Strategy|Superhero|
    Supernatural|Survival|Suspense|Talk Show|Technology|Teen|Thriller|Tools|Toys|Tragedy|Travel|True Crime|
    War|Western|World|Young Adult
    """
)

ADJECTIVES = _words(
    """
    Last First Lost Dark Black White Red Blue Green Golden Silver Secret Hidden Silent Broken Burning Frozen
    Little Big Great Grand Good Bad Evil Wild Crazy Happy Lonely Beautiful Perfect Strange Final Eternal
    Endless Forbidden Sacred Ancient New Old Young American French English Italian Chinese Japanese Russian
    Royal Dead Deadly Living Modern Classic Super Ultimate Total Absolute Pure True Real Magic Magical
    Mysterious Invisible Infinite Fallen Rising Flying Running Dancing Sleeping Falling Hungry Angry Brave
    Bold Bright Brilliant Broad Brief Calm Clean Clear Clever Cold Cool Cruel Crystal Curious Daily Dangerous
    Deep Divine Double Dry Dull Early Easy Electric Elegant Emerald Empty Essential Fair Famous Fantastic
    Fast Fatal Fearless Final Fine Free Fresh Friendly Full Funny Gentle Giant Global Glorious Heavy High
    Holy Honest Hot Human Humble Icy Immortal Impossible Innocent Inner Iron Legendary Light Long Low Lucky
    Mad Mighty Naked Narrow Natural Noble Northern Official Open Original Outer Painted Parallel Perfect
    Personal Phantom Plain Poor Precious Private Proud Quiet Rare Raw Ready Reckless Restless Rich Rough
    Ruthless Sad Savage Scarlet Second Serious Shadow Sharp Short Simple Single Small Smart Smooth Soft Solid
    Southern Special Spiritual Steel Stolen Stormy Strong Sudden Sweet Swift Tall Tender Terrible Third Tiny
    Tough Tragic Twisted Ultra Unknown Untold Urban Vast Velvet Vicious Victorious Violent Virtual Warm
    Western Wicked Wide Winter Wise Wooden Wrong Yellow Portable Wireless Professional Premium Heavy Duty
    Adjustable Stainless Digital Automatic Compact Deluxe Complete Advanced Basic Standard Limited Collector
    Definitive Remastered
    """
)

NOUNS = _words(
    """
    Love Life Death Day Night Man Woman Men Women Girl Boy Child Children Kid Kids Baby Mother Father Son
    Daughter Sister Brother Brothers Sisters Family Friend Friends Wife Husband Lady Gentleman King Queen
    Prince Princess Knight Knights Lord Master Soldier Soldiers Warrior Warriors Hero Heroes Angel Angels
    Devil Demon Demons Dragon Dragons Wolf Wolves Bear Lion Tiger Cat Dog Dogs Horse Bird Birds Eagle Fox
    Rabbit Snake Spider Monkey Mouse Rat Shark Whale Fish Butterfly House Home Castle Tower Bridge Road
    Street Highway City Town Village Island World Worlds Earth Moon Sun Star Stars Sky Heaven Hell Sea Ocean
    River Lake Mountain Hill Valley Forest Garden Desert Storm Rain Snow Wind Fire Ice Water Stone Rock Sand
    Dust Smoke Light Shadow Shadows Darkness Dream Dreams Nightmare Memory Memories Heart Hearts Soul Souls
    Mind Body Blood Bone Bones Eye Eyes Face Hand Hands Kiss Tears Smile Voice Song Songs Music Dance Story
    Stories Tale Tales Legend Legends Myth Book Books Letter Letters Diary Word Words Game Games Play Toy
    Toys Party Wedding Funeral Birthday Christmas Halloween Summer Winter Spring Autumn Morning Evening
    Midnight Dawn Sunset Time Times Year Years Hour Hours Minute Moment Century Age Past Future History
    Journey Adventure Adventures Quest Mission Voyage Trip Escape Flight Race War Wars Battle Battlefield
    Fight Attack Revenge Vengeance Justice Law Order Crime Murder Killer Killers Detective Spy Agent Police
    Cop Thief Thieves Gang Mob Mafia Prison Prisoner Trial Judge Jury Witness Victim Suspect Stranger
    Strangers Ghost Ghosts Vampire Vampires Zombie Zombies Witch Witches Wizard Monster Monsters Alien Aliens
    Robot Robots Machine Machines Space Planet Galaxy Universe Empire Kingdom Nation Republic Revolution
    Rebel Rebellion Freedom Liberty Peace Power Glory Honor Pride Prejudice Truth Lies Secret Secrets Mystery
    Mysteries Magic Curse Spell Treasure Gold Silver Diamond Diamonds Money Fortune Luck Chance Choice Fate
    Destiny Hope Faith Fear Anger Rage Fury Madness Chaos Order Paradise Eden Temple Church God Gods Saint
    Saints Sinner Sin Sins Miracle Prayer Gospel Ritual Crown Throne Sword Blade Shield Armor Arrow Gun Guns
    Bullet Bomb Tank Ship Boat Submarine Plane Train Car Cars Truck Motorcycle Bicycle Bus Taxi Driver Pilot
    Captain Doctor Nurse Hospital School Teacher Student College University Class President Senator Minister
    Lawyer Judge Artist Painter Writer Poet Actor Actress Singer Dancer Musician Band Orchestra Piano Guitar
    Drum Violin Trumpet Radio Television Camera Photograph Picture Movie Theater Stage Show Circus Clown
    Magician Chef Kitchen Dinner Breakfast Lunch Coffee Tea Wine Beer Chocolate Sugar Salt Pepper Apple
    Orange Lemon Cherry Rose Roses Flower Flowers Tree Trees Leaf Leaves Root Seed Farm Farmer Field Harvest
    Market Shop Store Bank Office Business Company Corporation Boss Worker Factory Industry Engine Motor
    Wheel Key Keys Door Doors Window Windows Room Wall Walls Floor Roof Garden Gate Fence Path Trail Track
    Line Circle Square Edge Border Frontier Horizon Coast Beach Shore Harbor Port Bay Cape Cove Cliff Cave
    Mine Tunnel Well Bridge Dam Tower Lighthouse Hotel Motel Inn Bar Club Casino Palace Mansion Cottage Cabin
    Tent Camp Park Zoo Museum Library Station Airport Academy Army Navy Force Squad Team League Champion
    Champions Tournament Cup Olympics Football Baseball Basketball Soccer Hockey Golf Tennis Boxing Wrestling
    Poker Chess Puzzle Riddle Trick Trap Maze Labyrinth Ring Rings Necklace Mirror Glass Mask Masks Doll
    Dolls Puppet Shoe Shoes Dress Coat Hat Suit Tie Boots Gloves Scarf Uniform Costume Jacket Shirt Pants
    Skin Hair Blonde Brunette Beauty Beast Beasts Creature Creatures Animal Animals Hunter Hunters Prey
    Predator Survivor Survivors Guardian Guardians Keeper Watcher Ranger Rangers Outlaw Cowboy Sheriff Bandit
    Pirate Pirates Samurai Ninja Viking Gladiator Pharaoh Mummy Emperor Duke Duchess Baron Count Countess
    Servant Slave Slaves Heir Orphan Twin Twins Generation Society Culture Nature Science Experiment Theory
    Project Code Cipher Signal System Network Matrix Program Virus Plague Disease Cure Medicine Poison Drug
    Drugs Addiction Obsession Desire Passion Lust Temptation Seduction Affair Marriage Divorce Romance
    Valentine Lover Lovers Bride Groom Widow Bachelor Virgin Mistress Gift Present Surprise Promise Vow Oath
    Debt Price Deal Contract Bargain Game Score Point Zero One Two Three Four Five Six Seven Eight Nine Ten
    Hundred Thousand Million Street Avenue Boulevard Lane Alley Corner Crossroads Exile Return Arrival
    Departure Beginning End Ending Origin Origins Chronicles Saga Trilogy Collection Anthology Edition Series
    Episode Chapter Part Volume Season Finale Awakening Rebirth Resurrection Redemption Salvation Sacrifice
    Betrayal Deception Conspiracy Scandal Confession Confessions Testament Legacy Inheritance Covenant
    Prophecy Oracle Vision Illusion Reflection Echo Echoes Whisper Whispers Scream Silence Thunder Lightning
    Tornado Hurricane Earthquake Volcano Flood Avalanche Eclipse Comet Meteor Asteroid Orbit Gravity Atom
    Nuclear Laser Crystal Metal Iron Steel Bronze Copper
    """
)

PRODUCTS = _words(
    """
    Controller Headset Keyboard Mouse Cable Charger Adapter Battery Case Cover Screen Protector Stand Mount
    Holder Memory Card Console Bundle Headphones Earbuds Speaker Microphone Monitor Printer Scanner Router
    Switch Hub Drive Drill Bit Saw Blade Hammer Wrench Screwdriver Pliers Tool Kit Set Pack Tape Glue Nail
    Screw Bolt Nut Washer Anchor Bracket Hinge Hook Chain Rope Wire Cord Hose Pipe Valve Pump Filter Fan
    Heater Lamp Bulb Light Flashlight Lantern Ladder Gloves Goggles Mask Respirator Helmet Vest Apron Boots
    Brush Roller Sponge Mop Broom Bucket Bag Box Bin Basket Tray Rack Shelf Cabinet Drawer Table Chair Desk
    Bench Stool Sofa Bed Pillow Blanket Towel Curtain Rug Mat Bottle Cup Mug Bowl Plate Pan Pot Knife Fork
    Spoon Grinder Blender Mixer Toaster Oven Grill Cooler Thermometer Scale Timer Clock Watch Gauge Meter
    Tester Sensor Probe Caliper Ruler Level Square Marker Pen Pencil Paper Notebook Label Sticker Stapler
    Scissors Cutter Sharpener Shampoo Soap Lotion Cream Oil Spray Perfume Razor Toothbrush Vitamin Tablet
    Capsule Powder Tubing Fitting Connector Coupling Gasket Seal Bearing Belt Pulley Gear Spring Relay
    Capacitor Resistor Diode Transistor Fuse Breaker Outlet Plug Socket Motor Compressor Regulator Nozzle
    Sandpaper Abrasive Wheel Disc Pad Swab Syringe Pipette Beaker Flask Tube Vial Dish Glove Wipe Bandage
    Tweezers Magnifier Microscope Lens
    """
)

NAMES = _words(
    """
    James John Robert Michael William David Richard Joseph Thomas Charles Daniel Matthew Anthony Mark Paul
    Steven Andrew George Kenneth Joshua Kevin Brian Edward Ronald Timothy Jason Jeffrey Ryan Jacob Gary
    Nicholas Eric Jonathan Stephen Larry Justin Scott Brandon Benjamin Samuel Frank Alexander Patrick Jack
    Dennis Jerry Tyler Aaron Henry Peter Adam Nathan Walter Harry Arthur Max Oscar Leo Felix Hugo Oliver
    Simon Martin Victor Louis Philip Ralph Roy Eugene Mary Patricia Jennifer Linda Elizabeth Barbara Susan
    Jessica Sarah Karen Lisa Nancy Betty Margaret Sandra Ashley Emily Donna Michelle Carol Amanda Melissa
    Deborah Stephanie Rebecca Laura Helen Sharon Cynthia Kathleen Amy Angela Anna Ruth Virginia Catherine
    Christine Maria Alice Julie Emma Grace Rose Sophie Charlotte Victoria Diana Julia Eva Smith Johnson
    Williams Brown Jones Miller Davis Wilson Anderson Taylor Moore Jackson Harris Clark Lewis Robinson Walker
    Hall Allen Young King Wright Hill Green Baker Nelson Carter Mitchell Turner Parker Collins Stewart Morris
    Murphy Cook Rogers Morgan Cooper Reed Bailey Bell Kelly Howard Ward Cox Richardson Watson Brooks Bennett
    Gray Hughes Price Myers Long Foster Sanders Ross Butler Simmons Jordan Mario Sonic Zelda Batman Superman
    Spider Lego Star Pokemon Sims Duty Halo Madden Final Doom Disney Barbie Potter Holmes Bond Wayne Dracula
    Frankenstein Godzilla
    """
)

PLACES = _words(
    """
    America London Paris York Angeles Vegas Hollywood Chicago Boston Texas California Florida Mexico Brazil
    Africa Egypt Morocco Casablanca Spain Italy Rome Venice Milan Germany Berlin Vienna Russia Moscow Siberia
    China Shanghai Beijing Tokyo Japan India Bombay Bangkok Vietnam Saigon Korea Australia Sydney Zealand
    Hawaii Alaska Canada Toronto Ireland Dublin Scotland England Britain France Normandy Marseille Greece
    Athens Troy Sparta Turkey Istanbul Persia Babylon Jerusalem Arabia Baghdad Tibet Himalaya Amazon Atlantis
    Avalon Camelot Wonderland Nowhere Broadway Brooklyn Manhattan Harlem Bronx Jersey Philadelphia Detroit
    Memphis Nashville Orleans Savannah Montana Dakota Wyoming Nevada Arizona Colorado Georgia Carolina
    Virginia Kentucky Oklahoma Kansas Nebraska Washington Oregon Seattle Francisco
    """
)

GERUNDS = _words(
    """
    Finding Saving Killing Hunting Chasing Losing Leaving Breaking Making Taking Being Becoming Loving
    Waiting Waking Walking Running Driving Riding Flying Falling Rising Fighting Facing Crossing Searching
    Seeking Stealing Stopping Telling Teaching Learning Living Dying Raising Remembering Forgetting Escaping
    Returning Shooting Playing Singing Dancing Dreaming Drowning Burning Burying Building Buying Selling
    Catching Conquering Meeting Missing
    """
)

BRANDS = _words(
    """
    Sony Nintendo Microsoft PlayStation Xbox Wii Logitech Samsung Panasonic Philips Canon Nikon Stanley
    Makita Bosch Dremel Loctite Scotch Rubbermaid Carhartt Honeywell Generic Universal Acme Delta Omega Nova
    Apex Vortex Titan Zenith Summit Pioneer Atlas Polar Arctic Pacific Atlantic Summit Turtle Beach Razer Mad
    Catz Hyper Ultra Pro Max Plus Mini Lite Air Nano Mega Giga Tera Neo Eco Bio Aero Hydro Thermo Electro
    Magna Dura Flex Tech Gear Works Craft
    """
)

SUFFIXES = _phrases(
    """
    II|III|IV|V|2|3|4|5|6|7|Part 1|Part 2|Part II|Part III|Vol. 1|Vol. 2|Volume 3|Season 1|Season Two|
    Episode One|Episode IV|Special Edition|Deluxe Edition|Collector's Edition|Limited Edition|Director's Cut|
    The Movie|The Game|Game of the Year|Remastered|Reloaded|Returns|Forever|Begins|Unleashed|Revisited|HD|3D|
    DVD|Blu-ray|PC|Xbox 360|Xbox One|PlayStation 2|PlayStation 3|PlayStation 4|PS3|PS4|PSP|Nintendo DS|
    Nintendo 3DS|Nintendo 64|Wii|Wii U|Game Boy Advance|Sega Genesis|Paperback|Hardcover|Audio CD|Unabridged|
    Live|Remix|Acoustic|Original Soundtrack
    """
)

COLOURS = ("Black", "White", "Red", "Blue", "Green", "Silver", "Gray", "Yellow", "Clear", "Pink", "Purple", "Orange")
UNITS = ("Inch", "Pack", "Count", "Feet", "Ounce", "mm", "cm", "Gallon", "Volt", "Watt", "Piece", "Set", "lb", "oz")

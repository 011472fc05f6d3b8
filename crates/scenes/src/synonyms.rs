//! Other names of things that sprites show, each as true as the sprite's own.

/// Name, other name, its plural.
const SYNONYMS: &[(&str, &str, &str)] = &[
    ("rabbit", "bunny", "bunnies"),
    ("hatching chick", "chick", "chicks"),
    ("rooster", "cockerel", "cockerels"),
    ("white dove", "dove", "doves"),
    ("tropical fish", "fish", "fish"),
    ("crocodile", "alligator", "alligators"),
    ("ladybug", "ladybird", "ladybirds"),
    ("dog face", "puppy", "puppies"),
    ("cat face", "kitten", "kittens"),
    ("bear", "brown bear", "brown bears"),
    ("panda", "panda bear", "panda bears"),
    ("red mushroom", "toadstool", "toadstools"),
    ("pine tree", "fir", "firs"),
    ("maple leaf", "autumn leaf", "autumn leaves"),
    ("red apple", "apple", "apples"),
    ("green apple", "apple", "apples"),
    ("slice of watermelon", "watermelon", "watermelons"),
    ("eggplant", "aubergine", "aubergines"),
    ("hamburger", "burger", "burgers"),
    ("slice of pizza", "pizza", "pizzas"),
    ("piece of sushi", "sushi roll", "sushi rolls"),
    ("ice cream cone", "ice cream", "ice creams"),
    ("doughnut", "donut", "donuts"),
    ("birthday cake", "cake", "cakes"),
    ("cup of coffee", "coffee cup", "coffee cups"),
    ("airplane", "plane", "planes"),
    ("flying saucer", "ufo", "ufos"),
    ("rocket", "spaceship", "spaceships"),
    ("sailboat", "boat", "boats"),
    ("canoe", "rowing boat", "rowing boats"),
    ("steam train", "locomotive", "locomotives"),
    ("fire truck", "fire engine", "fire engines"),
    ("car", "automobile", "automobiles"),
    ("racing car", "race car", "race cars"),
    ("motorcycle", "motorbike", "motorbikes"),
    ("bicycle", "bike", "bikes"),
    ("taxi", "cab", "cabs"),
    ("house", "cottage", "cottages"),
    ("office building", "skyscraper", "skyscrapers"),
    ("castle", "fortress", "fortresses"),
    ("red heart", "heart", "hearts"),
    ("grinning face", "smiley", "smileys"),
    ("gift box", "present", "presents"),
    ("soccer ball", "football", "footballs"),
    ("teddy bear", "toy bear", "toy bears"),
    ("pumpkin lantern", "pumpkin", "pumpkins"),
    ("alarm clock", "clock", "clocks"),
    ("television", "tv", "tvs"),
    ("gem", "jewel", "jewels"),
];

/// The other names of `noun`: singular and plural.
pub(crate) fn of(noun: &str) -> Vec<(String, String)> {
    let own = SYNONYMS.iter().filter(|(name, ..)| *name == noun);
    own.map(|&(_, one, many)| (one.to_owned(), many.to_owned()))
        .collect()
}
